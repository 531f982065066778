"""Clients' files are read and decoded in processes of their own, which may crash, hang or run out of memory."""
