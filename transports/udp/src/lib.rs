//! UDP multicast: spinning sockets or io_uring, with segmentation offload
