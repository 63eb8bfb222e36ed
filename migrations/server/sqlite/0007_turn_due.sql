-- The turn has its entries, and its agent has not been heard to run since: whoever waits for the agent to be done waits on.
ALTER TABLE turn ADD COLUMN due BOOLEAN NOT NULL DEFAULT FALSE;
