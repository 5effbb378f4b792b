-- Who works with this file, on which machine. A file in which a person has no row is somebody else's:
-- nothing is written to it, and nobody is asked for it, before that person trusts it (--trust).
CREATE TABLE owners (
    user      TEXT    NOT NULL CHECK (user <> ''),
    host      TEXT    NOT NULL,
    how       TEXT    NOT NULL CHECK (how = 'made' OR how = 'trusted' OR how = 'moved'),
    since_ms  INTEGER NOT NULL,
    open_told INTEGER NOT NULL DEFAULT 0 CHECK (open_told IN (0, 1)),  -- 1: that others may read it
    PRIMARY KEY (user, host)
) STRICT, WITHOUT ROWID;
