-- What else a service says of an answer: its id, the tier that served it, how sure the model was.

ALTER TABLE attempts ADD COLUMN details TEXT;    -- a JSON object, in the service's names
