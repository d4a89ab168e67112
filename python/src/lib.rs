//! tarndb-python
