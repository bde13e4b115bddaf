import sys

from expdecay_keras.command import main

sys.exit(main())
