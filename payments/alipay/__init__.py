"""Payments by Alipay, in yuan: its words, orders, notifications, and what is booked of them."""
