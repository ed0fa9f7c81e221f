"""A certificate for localhost and 127.0.0.1, for tests only; valid for a hundred years."""

import grpc

KEY = b"""-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg6X/ylWd0TIq14R8S
KTyF7Av25qMAZZCXh5wywFuIrQqhRANCAATuKKWi0Or9mr/wsz7uLTLoBdVWKz78
Ek05BxdNX1vkswjsxj4j/1I3EBvDOUKFTI2e56jceuOpvrEk2vBA5/3B
-----END PRIVATE KEY-----
"""
CERTIFICATE = b"""-----BEGIN CERTIFICATE-----
MIIBmzCCAUGgAwIBAgIUA2rhhNxGeftJ6whcCsvKpS0ADOQwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMzEzNDYxNVoYDzIxMjYxMDMw
MTM0NjE1WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAATuKKWi0Or9mr/wsz7uLTLoBdVWKz78Ek05BxdNX1vkswjsxj4j/1I3
EBvDOUKFTI2e56jceuOpvrEk2vBA5/3Bo28wbTAdBgNVHQ4EFgQUA9FmQ38rMRDu
FGSoVHRTVGjYO24wHwYDVR0jBBgwFoAUA9FmQ38rMRDuFGSoVHRTVGjYO24wDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDSAAwRQIgFFbMpeqxVvREhHWngWHTvoUIF0kXjIetkTFb7ownHBQCIQDj
ygeh01QgMsRzC+3MW/r4DYfefxy2+EmaucdCLGSTaQ==
-----END CERTIFICATE-----
"""


def server_credentials() -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials([(KEY, CERTIFICATE)])


def channel_credentials() -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(CERTIFICATE)
