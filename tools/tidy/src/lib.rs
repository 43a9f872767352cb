//! Holds the tree to its own rules: layers, doc pages, file sizes
