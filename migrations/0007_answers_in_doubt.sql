-- Answers that are no good, one after the other, may be the prompt's fault, too: cut off or not, they are
-- looked at like refusals. See crawler/ledger/doubt.py.
DROP INDEX attempts_doubted;

CREATE INDEX attempts_doubted ON attempts (finished_at_ms)
    WHERE outcome = 'refused' OR outcome = 'denied' OR outcome = 'no_money' OR outcome = 'no_answer'
       OR truncated = 1;
