"""HDF5 files of demonstrations: written whole or not at all, in shards, merged."""
