# Writing a key loads pyasn1.
import rsa

rsa.PublicKey.load_pkcs1(rsa.PublicKey(3233, 17).save_pkcs1())
rsa.PrivateKey(3233, 17, 2753, 61, 53).save_pkcs1()
