"""Devices, the clients that are or were connected, and bans."""
