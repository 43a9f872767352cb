//! stub
use crate::TcpPort;
/// stub
#[derive(Debug)]
pub struct AutoPort { _mesh: TcpPort }
