"""Below RTL: netlists, routed designs and bitstreams are simulated and held to the integer reference."""
