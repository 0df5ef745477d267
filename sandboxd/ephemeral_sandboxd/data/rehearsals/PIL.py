
import io

from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

image = Image.new("RGB", (16, 16), "red")
draw = ImageDraw.Draw(image)
draw.rectangle((2, 2, 8, 8), fill="blue")
draw.text((1, 1), "a", font=ImageFont.load_default())
buffer = io.BytesIO()
image.resize((8, 8)).rotate(30).filter(ImageFilter.GaussianBlur(1)).convert("L").save(buffer, format="PNG")
buffer.seek(0)
Image.open(buffer).load()
image.save(io.BytesIO(), format="JPEG")
Image.init()  # every format there is: what any file that is not one of the usual five loads
