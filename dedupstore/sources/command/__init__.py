"""Standard input or a command's output as a source of one stream."""
