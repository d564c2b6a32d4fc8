"""Images: file headers, decoding, preprocessing, PDQ, regions."""
