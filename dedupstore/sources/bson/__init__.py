"""Documents of MongoDB in dumps and archives: raw BSON, its order, and the leaves that it is stored in."""
