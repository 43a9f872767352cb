//! Every frame Bourdon puts on a network, defined once: headers, ids, records, total decoders
