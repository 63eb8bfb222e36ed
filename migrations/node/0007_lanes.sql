-- What is open between two agents, in the order in which it is published: the driver reads a lane a page at a time.
CREATE INDEX delivery_lane ON delivery (sender_agent, recipient, sequence, msg_id) WHERE open = 1;
