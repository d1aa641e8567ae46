//! sticky between network namespaces, with backends from a file. Needs root.

mod harness;
