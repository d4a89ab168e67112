//! Benchmarks of tarndb. The comparisons with other engines are in `compare/`, in Python, where those engines are.
