-- Where an agent lived before it moved to the node that it lives on now, and when it moved.
ALTER TABLE agent ADD COLUMN former_node_id BLOB;
ALTER TABLE agent ADD COLUMN moved_ms BIGINT;
