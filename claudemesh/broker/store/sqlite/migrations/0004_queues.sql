-- Work queues: a delivery of one names it, and until a subscriber has it its recipient is ''.
ALTER TABLE delivery_queue ADD COLUMN queue TEXT;

CREATE INDEX delivery_queue_waiting ON delivery_queue (mesh_id, queue, priority, delivery_id)
  WHERE recipient_member_id = '';

CREATE INDEX delivery_queue_taken ON delivery_queue (recipient_member_id) WHERE queue IS NOT NULL;
