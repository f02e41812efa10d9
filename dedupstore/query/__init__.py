"""MongoDB's queries over raw BSON: filters, sorts, projections, pipelines. No I/O of its own."""
