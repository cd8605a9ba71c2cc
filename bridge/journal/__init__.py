"""The durable record: the queue, the state and the evidence are the same rows."""
