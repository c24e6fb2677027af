clear
echo "Welcome to the post office."
