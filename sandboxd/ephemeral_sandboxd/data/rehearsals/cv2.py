import cv2
import numpy as np

image = np.zeros((32, 32, 3), np.uint8)
cv2.rectangle(image, (4, 4), (20, 20), (255, 255, 255), -1)
gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
cv2.findContours(cv2.Canny(gray, 50, 150), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
cv2.imencode(".png", cv2.GaussianBlur(image, (3, 3), 0))
