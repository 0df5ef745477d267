# `import Crypto` alone loads nothing.
from Crypto.Cipher import AES, PKCS1_OAEP
from Crypto.Hash import SHA256
from Crypto.Protocol.KDF import PBKDF2
from Crypto.PublicKey import RSA
from Crypto.Random import get_random_bytes
from Crypto.Util.Padding import pad

AES.new(bytes(16), AES.MODE_CBC, iv=bytes(16)).encrypt(pad(b"a", 16))
AES.new(bytes(16), AES.MODE_GCM, nonce=bytes(12)).encrypt_and_digest(b"a")
SHA256.new(b"a").hexdigest()
