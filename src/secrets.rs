//! Everything that is derived from the one root secret: installation id, CA, certificates, replication passwords.
