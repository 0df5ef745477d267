import io

from PIL import Image, ImageDraw, ImageFilter

image = Image.new("RGB", (16, 16), "red")
ImageDraw.Draw(image).rectangle((2, 2, 8, 8), fill="blue")
buffer = io.BytesIO()
image.resize((8, 8)).rotate(30).filter(ImageFilter.GaussianBlur(1)).convert("L").save(buffer, format="PNG")
buffer.seek(0)
Image.open(buffer).load()
