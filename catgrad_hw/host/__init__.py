"""The host's side of a board: protocol, transport, driver."""
