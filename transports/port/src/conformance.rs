//! One suite for every port.
