"""Real files of any folder, sent to a service, and each answer compared with what other libraries read."""
