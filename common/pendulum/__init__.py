"""What is known of Pendulum alone: optimum.py solves it, explain.py draws what was learned beside
the best, and page.py makes of it a page to play with in a browser, from page.html."""
