"""Messages: accepting, publishing, delivering, and work queues."""
