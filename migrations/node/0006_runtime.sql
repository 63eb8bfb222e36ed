-- Agents that this node runs as processes, and what the control plane is still to be told of them.

CREATE TABLE runtime_agent (
    agent_id    BLOB PRIMARY KEY,
    incarnation INTEGER NOT NULL,
    -- It is looked after: it has neither ended nor gone to sleep.
    live        INTEGER NOT NULL,
    -- murmur.v1.StartAgent, as ordered.
    start       BLOB NOT NULL,
    -- What the runtime remembers of it, as JSON.
    state       TEXT NOT NULL,
    updated_ms  INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX runtime_agent_live ON runtime_agent (live) WHERE live;

CREATE TABLE runtime_report (
    -- Reports are told in this order.
    seq       INTEGER PRIMARY KEY AUTOINCREMENT,
    -- The call that tells it, the same in every repeat; set when it is first tried.
    report_id TEXT,
    -- murmur.v1.AgentReport
    report    BLOB NOT NULL
);
