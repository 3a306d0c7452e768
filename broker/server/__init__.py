"""The shells: sockets, time, long polls, and the fsync."""
