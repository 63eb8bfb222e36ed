-- Who held a node's lease last (PROTOCOL §5.9). `departed` is 0 while it may still be running somewhere: it fell
-- silent; 2 when its stream broke, as when it is killed; 1 when it said goodbye. `redeliver` is 1 until what a silent one was handed
-- has been taken back. Broker
-- tokens of up to `void_s` (Unix seconds) are void before another incarnation gets one; `voided_s` is how far the broker has been told.
-- `store_mark` is how far the node's store had come, by which a restored one is recognised (PROTOCOL §2.6).
ALTER TABLE node ADD COLUMN incarnation BLOB;
ALTER TABLE node ADD COLUMN departed INTEGER NOT NULL DEFAULT 1;
ALTER TABLE node ADD COLUMN redeliver INTEGER NOT NULL DEFAULT 0;
ALTER TABLE node ADD COLUMN void_s INTEGER NOT NULL DEFAULT 0;
ALTER TABLE node ADD COLUMN voided_s INTEGER NOT NULL DEFAULT 0;
ALTER TABLE node ADD COLUMN store_mark INTEGER NOT NULL DEFAULT 0;
