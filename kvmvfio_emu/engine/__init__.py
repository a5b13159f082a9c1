"""What makes the model move and be seen: time, deferred work, the event stream, readiness of real files."""
