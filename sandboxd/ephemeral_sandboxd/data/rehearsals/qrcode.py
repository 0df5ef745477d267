import io

import qrcode

qrcode.make("a").save(io.BytesIO())
