"""The oplog as data: what its entries mean, and what a stretch of them comes to."""
