-- What a request carries for its answer, in the words of its adapter; '' as a rule.

ALTER TABLE triggers ADD COLUMN reply TEXT NOT NULL DEFAULT '';
