"""A read-only server of MongoDB's wire protocol over one view of collections."""
