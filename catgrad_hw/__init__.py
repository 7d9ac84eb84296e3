"""catgrad_hw: models compiled, with their reverse derivatives, to circuits that train themselves."""
