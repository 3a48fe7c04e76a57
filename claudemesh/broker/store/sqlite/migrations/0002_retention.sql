-- What the sweeps look for: who is still owed a message, and who was mentioned in one.
CREATE INDEX delivery_queue_message ON delivery_queue (broker_message_id);

CREATE INDEX mention_index_message ON mention_index (broker_message_id);
