"""The compiler's levels from open hypergraphs down to kernels."""
