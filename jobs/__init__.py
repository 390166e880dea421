"""The life of a run: records, the one state machine, the queue's doorbell and the processes."""
