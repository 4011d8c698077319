"""Templates of other libraries, read by parsers of their own: nothing in them is ever evaluated."""
