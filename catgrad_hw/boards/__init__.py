"""Boards: what they hold, and how a model becomes a bitstream for one."""
