-- Where a peer lived before it moved to the node that it lives on now, and when it moved.
ALTER TABLE directory_peer ADD COLUMN former_node_id BLOB;
ALTER TABLE directory_peer ADD COLUMN moved_ms INTEGER;
