//! UDP multicast over mio, for hosts without io_uring
