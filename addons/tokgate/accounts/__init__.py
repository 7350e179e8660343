"""Who an explicit-proxy client is: password files, LDAP, and a cache of what was checked."""
